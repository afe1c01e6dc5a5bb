"""What makes a killed run end as an uninterrupted one: state, identity, hooks."""
