"""Hostile and odd torrents, made by code, each with the verdict that is expected."""
