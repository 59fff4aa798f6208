import FileFormats

extension FeatureStatistics {
    /// Reads `mu` [D] and `sigma` [D, D] from an .npz file, as written by pytorch-fid (`--save-stats`) and
    /// clean-fid. The file does not contain the number of images.
    ///
    /// - Throws: an error with a one-line message.
    package init(npz path: String) throws {
        let archive = try NumpyArchive(path)
        let (mu, sigma) = (try archive.array("mu"), try archive.array("sigma"))
        let D = mu.values.count
        guard mu.shape.count == 1, (1...8192).contains(D), sigma.shape == [D, D] else {
            throw StatisticsError(path, "mu is \(mu.shape) and sigma \(sigma.shape), expected [D] and [D, D]")
        }
        guard mu.values.allSatisfy(\.isFinite), sigma.values.allSatisfy(\.isFinite) else {
            throw StatisticsError(path, "holds values that are NaN or infinite")
        }
        let largest = sigma.values.reduce(0) { max($0, abs($1)) }
        for i in 0..<D {
            for j in 0..<i where abs(sigma.values[i * D + j] - sigma.values[j * D + i]) > 1e-6 * largest {
                throw StatisticsError(path, "sigma is not symmetric, expected a covariance")
            }
        }
        self.init(count: 0, mean: mu.values, covariance: sigma.values)
    }
}
