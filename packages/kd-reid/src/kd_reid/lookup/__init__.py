"""Folders of pictures, embedded and searched: `reid_embed` and `reid_search`."""
