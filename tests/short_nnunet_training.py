"""Stock `nnUNetv2_train` with two iterations, run as a program: nothing but the length of a training is changed."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

start = nnUNetTrainer.on_train_start


def start_a_short_training(self):
    self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 2, 1
    start(self)


if __name__ == "__main__":
    from nnunetv2.run.run_training import run_training_entry

    nnUNetTrainer.on_train_start = start_a_short_training
    run_training_entry()
