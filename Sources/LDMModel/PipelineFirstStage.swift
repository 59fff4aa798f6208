import Support

/// The first stage that a diffusion model was trained with, as recorded in a checkpoint's manifest.
package struct FirstStageReference: Sendable, Equatable {
    /// The autoencoder's folder, as given in the run's configuration.
    package var path: String
    /// Hash of the autoencoder's weights, if one was computed.
    package var weightsHash: String?
    /// Latents are multiplied by this for training, and divided by it before decoding.
    package var scalingFactor: Double
    /// Subtracted from latents before scaling.
    package var shiftFactor: Double

    package init(path: String, weightsHash: String? = nil, scalingFactor: Double, shiftFactor: Double = 0) {
        self.path = path
        self.weightsHash = weightsHash
        self.scalingFactor = scalingFactor
        self.shiftFactor = shiftFactor
    }

    /// Parses the value written by `json`; nil for null or anything else.
    package init?(_ json: JSONValue?) {
        guard let path = json?["path"]?.stringValue, let scale = json?["scaling_factor"]?.doubleValue else {
            return nil
        }
        self.init(
            path: path, weightsHash: json?["weights_hash"]?.stringValue, scalingFactor: scale,
            shiftFactor: json?["shift_factor"]?.doubleValue ?? 0)
    }

    package var json: JSONValue {
        [
            "path": .string(path), "weights_hash": weightsHash.map { .string($0) } ?? .null,
            "scaling_factor": .number(scalingFactor), "shift_factor": .number(shiftFactor),
        ]
    }
}
