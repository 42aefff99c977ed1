"""What is trained and measured: backbones, data, recipes, protocols, training, counting."""
