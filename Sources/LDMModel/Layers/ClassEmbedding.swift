import TensorCore

// B samples, D width of the timestep embedding.

/// The embedding of a sample's class, which is added to the timestep embedding: diffusers' `class_embedding`
/// (Dhariwal and Nichol, 2021).
struct ClassEmbedding {
    private enum Kind {
        /// A learned vector for each class, [N, D].
        case table(Parameter)
        /// The class is embedded like a timestep.
        case timestep(TimestepEmbedding)
    }

    private let kind: Kind

    /// Declares the parameters; nil for an unconditional model.
    ///
    /// - Parameter root: the scope of the U-Net.
    init?(_ root: ParameterScope, _ config: UNet2DConfig) {
        let scope = root["class_embedding"]
        if config.classEmbedType == .timestep {
            kind = .timestep(
                TimestepEmbedding(
                    scope, channels: config.blockOutChannels[0], timeChannels: config.timeEmbedDim,
                    flipSinToCos: config.flipSinToCos, freqShift: Float(config.freqShift)))
        } else if let count = config.numClassEmbeds {
            kind = .table(scope.declare("weight", [count, config.timeEmbedDim], .normal))
        } else {
            return nil
        }
    }

    /// - Parameter label: [B], fp32
    /// - Returns: [B, D]
    func callAsFunction(_ tape: Tape, _ label: Tensor) -> Tensor {
        switch kind {
        case .table(let table): tape.embedding(label, table)
        case .timestep(let embedding): embedding(tape, label)
        }
    }
}
