"""Input that is decoded on the host as it is needed; nothing here runs on a device but `stream`."""
