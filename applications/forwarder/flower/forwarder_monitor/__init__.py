"""The Forwarder's monitor: Flower, behind basic authentication."""
