"""How the layers compute: convolutions of signs, bits, sharding. Private; may change."""
