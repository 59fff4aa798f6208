/// Weights that are a sum of others, each times a factor: an average that was not kept, from averages that were.
public struct WeightMixture: Sendable {
    public struct Part: Sendable {
        /// Holds a model's weights.
        public let folder: ModelFolder
        public let factor: Double

        public init(_ folder: ModelFolder, factor: Double) {
            self.folder = folder
            self.factor = factor
        }
    }

    /// What the sum is called.
    public let name: String
    public let parts: [Part]

    public init(name: String, parts: [Part]) {
        self.name = name
        self.parts = parts
    }

    /// A folder's weights as they are.
    init(of folder: ModelFolder) {
        self.init(name: folder.path, parts: [Part(folder, factor: 1)])
    }
}
