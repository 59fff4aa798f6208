import TensorCore

/// Sinusoidal timestep embedding followed by two linear layers, diffusers' Timesteps and TimestepEmbedding
/// (Ho et al., 2020, appendix B).
package struct TimestepEmbedding {
    let linear1: Linear
    let linear2: Linear
    let channels: Int
    let flipSinToCos: Bool
    let freqShift: Float

    /// - Parameters:
    ///   - channels: width of the sinusoidal embedding
    ///   - timeChannels: width of the result
    ///   - flipSinToCos: whether cosines precede sines
    ///   - freqShift: frequencies are 10000^(-i/(channels/2 - freqShift))
    package init(
        _ scope: ParameterScope, channels: Int, timeChannels: Int, flipSinToCos: Bool, freqShift: Float
    ) {
        linear1 = Linear(scope["linear_1"], channels, timeChannels)
        linear2 = Linear(scope["linear_2"], timeChannels, timeChannels)
        self.channels = channels
        self.flipSinToCos = flipSinToCos
        self.freqShift = freqShift
    }

    /// - Parameter timestep: [B], fp32
    /// - Returns: [B, timeChannels]
    package func callAsFunction(_ tape: Tape, _ timestep: Tensor) -> Tensor {
        let sinusoids = tape.timestepEmbedding(
            timestep, dim: channels, flipSinToCos: flipSinToCos, freqShift: freqShift)
        return linear2(tape, tape.silu(linear1(tape, sinusoids)))
    }
}
