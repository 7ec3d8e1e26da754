"""Networks with a fault put in on purpose, beside a healthy twin."""
