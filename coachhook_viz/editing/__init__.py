"""The compact editing core: facts in, factors out, hooks on. Torch only."""
