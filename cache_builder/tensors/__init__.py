"""Records and networks in torch: encoders, decoders, digests of weights, second heads."""
