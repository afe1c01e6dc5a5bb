"""Networks of other libraries: their heads, their outputs, their names and image sizes."""
