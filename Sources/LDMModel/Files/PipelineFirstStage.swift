/// The first stage that a diffusion model was trained behind, as a checkpoint's manifest names it.
public struct FirstStageReference: Sendable, Equatable {
    /// The autoencoder's folder, as the run's configuration gave it.
    public var path: String
    /// Hash of the autoencoder's weights, where one was taken.
    public var weightsHash: String?
    /// Latents are multiplied by this for training, and divided by it before they are decoded.
    public var scalingFactor: Double
    /// Subtracted from latents before scaling.
    public var shiftFactor: Double

    public init(path: String, weightsHash: String? = nil, scalingFactor: Double, shiftFactor: Double = 0) {
        self.path = path
        self.weightsHash = weightsHash
        self.scalingFactor = scalingFactor
        self.shiftFactor = shiftFactor
    }

    /// Reads what `json` wrote; nil for null or anything else.
    public init?(_ json: JSONValue?) {
        guard let path = json?["path"]?.stringValue, let scale = json?["scaling_factor"]?.doubleValue else {
            return nil
        }
        self.init(
            path: path, weightsHash: json?["weights_hash"]?.stringValue, scalingFactor: scale,
            shiftFactor: json?["shift_factor"]?.doubleValue ?? 0)
    }

    public var json: JSONValue {
        [
            "path": .string(path), "weights_hash": weightsHash.map { .string($0) } ?? .null,
            "scaling_factor": .number(scalingFactor), "shift_factor": .number(shiftFactor),
        ]
    }
}
