# The one file nnU-Net finds through nnUNet_extTrainer. It is imported at every lookup of any external trainer, also
# other people's, so it may need nothing but torch and nnunetv2. The classes live in the installed package: nnU-Net
# drops modules of this folder after the search, and a class whose module is gone cannot be pickled for spawned workers.
from umamba_seg.trainers.demo import nnUNetTrainerDemo
from umamba_seg.trainers.lightm_unet import nnUNetTrainerLightMUNet
from umamba_seg.trainers.segmamba import nnUNetTrainerSegMamba, nnUNetTrainerSegMambaV2
from umamba_seg.trainers.umamba import nnUNetTrainerUMambaBot, nnUNetTrainerUMambaEnc, nnUNetTrainerUMambaEncNoAMP
from umamba_seg.trainers.uu_mamba import nnUNetTrainerUUMamba, nnUNetTrainerUUMambaPublished
