import LDMModel
