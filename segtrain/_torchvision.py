"""Makes torchvision importable for the modules here, also beside a CPU build of torch."""

from pseudolabel.weights import import_torchvision

import_torchvision()
