"""Stock `nnUNetv2_train` with two iterations, run as a program: nothing but the length of nnUNetTrainer is changed."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

construct = nnUNetTrainer.__init__


def construct_for_a_short_training(self, plans, configuration, fold, dataset_json, device):
    construct(self, plans, configuration, fold, dataset_json, device)
    self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 2, 1


if __name__ == "__main__":
    from nnunetv2.run.run_training import run_training_entry

    # the host introspects the constructor's parameters, which this one therefore repeats
    nnUNetTrainer.__init__ = construct_for_a_short_training
    run_training_entry()
