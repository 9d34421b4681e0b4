"""Ten steps of training with every optimizer: losses, gradient norms, parameters."""
from parity import training

training("SGD", dict(lr=0.1))
training("SGD", dict(lr=0.05, momentum=0.9))
training("SGD", dict(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01))
training("SGD", dict(lr=0.1, momentum=0.5, dampening=0.25), groups=True)
training("Adam", dict(lr=0.05))
training("Adam", dict(lr=0.05, betas=[0.8, 0.9], eps=1e-4, weight_decay=0.1))
training("Adam", dict(lr=0.05, amsgrad=True), groups=True)
training("AdamW", dict(lr=0.05))
training("AdamW", dict(lr=0.05, weight_decay=0.2, amsgrad=True), groups=True)
training("AdamW", dict(lr=0.05), max_norm=0.25)
training("SGD", dict(lr=0.5, momentum=0.9), max_norm=0.1)
