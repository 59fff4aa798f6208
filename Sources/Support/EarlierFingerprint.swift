/// A fingerprint by the rule of earlier versions. It is computed lazily, only for comparison with a
/// checkpoint that holds such a fingerprint, because it reads files.
package struct EarlierFingerprint: Sendable, Equatable {
    private let compute: @Sendable () -> String

    package init(_ compute: @escaping @Sendable () -> String) { self.compute = compute }

    /// Whether `fingerprint` has the earlier format and matches the same data.
    package func matches(_ fingerprint: String) -> Bool {
        !fingerprint.hasPrefix(SourceFingerprint.prefix) && compute() == fingerprint
    }

    /// Always equal: datasets are compared by their current fingerprints.
    package static func == (a: EarlierFingerprint, b: EarlierFingerprint) -> Bool { true }
}
