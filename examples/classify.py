"""python examples/classify.py PICTURE [NAME]: what a network that comes trained sees in it."""

import sys

import numpy as np
from PIL import Image

import ovsw_jax as ovsw

net = ovsw.models.pretrained((*sys.argv, "digits")[2])
height, width, channels = net.frozen.input_shape
picture = Image.open(sys.argv[1]).convert("RGB" if channels == 3 else "L").resize((width, height))
pixels = np.asarray(picture).reshape(1, height, width, channels)
print(net.classes[net.predict(pixels)[0]])
