/// A weighted sum of stored weights, for example an average that was not stored, reconstructed from averages
/// that were.
package struct WeightMixture: Sendable {
    package struct Part: Sendable {
        /// The folder with a model's weights.
        package let folder: ModelFolder
        package let factor: Double

        package init(_ folder: ModelFolder, factor: Double) {
            self.folder = folder
            self.factor = factor
        }
    }

    /// The name of the sum.
    package let name: String
    package let parts: [Part]

    package init(name: String, parts: [Part]) {
        self.name = name
        self.parts = parts
    }

    /// A folder's weights, unchanged.
    init(of folder: ModelFolder) {
        self.init(name: folder.path, parts: [Part(folder, factor: 1)])
    }
}
