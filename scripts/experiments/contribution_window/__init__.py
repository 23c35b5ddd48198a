"""How far the gradient of a feature cell reaches, and what CAM and saliency recover of a digit."""
