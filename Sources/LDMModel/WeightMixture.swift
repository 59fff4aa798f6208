/// Weights that are a sum of others, each times a factor: an average that was not kept, from averages that were.
package struct WeightMixture: Sendable {
    package struct Part: Sendable {
        /// Holds a model's weights.
        package let folder: ModelFolder
        package let factor: Double

        package init(_ folder: ModelFolder, factor: Double) {
            self.folder = folder
            self.factor = factor
        }
    }

    /// What the sum is called.
    package let name: String
    package let parts: [Part]

    package init(name: String, parts: [Part]) {
        self.name = name
        self.parts = parts
    }

    /// A folder's weights as they are.
    init(of folder: ModelFolder) {
        self.init(name: folder.path, parts: [Part(folder, factor: 1)])
    }
}
