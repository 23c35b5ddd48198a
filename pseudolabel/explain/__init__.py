"""Any torch model to maps: model, method, layers, folding, class groups, views."""
