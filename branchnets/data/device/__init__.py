"""The part of input that runs on the devices: resident data sets, augmentation, mixing."""
