"""What can be found in a text, one module per detector behind the protocol in `detector.py`."""
