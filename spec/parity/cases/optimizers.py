"""Ten steps of training with RMSprop, Adagrad, NAdam, RAdam: losses, gradient norms, parameters."""
from parity import training

training("RMSprop", dict(lr=0.02))
training("RMSprop", dict(lr=0.02, alpha=0.9, eps=1e-4, weight_decay=0.1, momentum=0.5), absent=[1, 4, 5])
training("RMSprop", dict(lr=0.02, alpha=0.9, centered=True), groups=True)
training("RMSprop", dict(lr=0.02, momentum=0.9, centered=True), absent=[2])
training("Adagrad", dict(lr=0.1), groups=True)
training("Adagrad", dict(lr=0.1, lr_decay=0.05, weight_decay=0.1, initial_accumulator_value=0.5, eps=1e-4),
         absent=[1, 4, 5])
training("NAdam", dict(lr=0.05), groups=True)
training("NAdam", dict(lr=0.05, betas=[0.8, 0.9], eps=1e-4, weight_decay=0.1, momentum_decay=0.05), absent=[1, 4, 5])
training("NAdam", dict(lr=0.05, weight_decay=0.1, decoupled_weight_decay=True), absent=[2])
training("RAdam", dict(lr=0.05), groups=True)
training("RAdam", dict(lr=0.05, betas=[0.8, 0.9], eps=1e-4, weight_decay=0.1), absent=[1, 4, 5])
training("RAdam", dict(lr=0.05, betas=[0.8, 0.95], weight_decay=0.1, decoupled_weight_decay=True), absent=[2])
