"""The codecs in torch: logits on a device to records there, and records to logits."""
