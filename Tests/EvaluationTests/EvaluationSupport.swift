import LDMModel

/// A U-Net of 8 x 8 pixels with a few hundred parameters.
func tinyUNetConfig() -> UNet2DConfig {
    var config = UNet2DConfig()
    config.sampleSize = SpatialSize(8)
    config.blockOutChannels = [8, 8]
    config.layersPerBlock = 1
    config.downBlockTypes = [.plain, .plain]
    config.upBlockTypes = [.plain, .plain]
    config.normNumGroups = 4
    return config
}
