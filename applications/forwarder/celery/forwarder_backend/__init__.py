"""The Forwarder's backend: gives accepted requests their effect, once, and makes connections what they shall be."""
