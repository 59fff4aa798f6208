/// A fingerprint by the rule of earlier versions. It is computed only when it is compared with a checkpoint that holds
/// such a one, because it reads files.
package struct EarlierFingerprint: Sendable, Equatable {
    private let compute: @Sendable () -> String

    package init(_ compute: @escaping @Sendable () -> String) { self.compute = compute }

    /// Whether a fingerprint is of an earlier version and of the same data.
    package func matches(_ fingerprint: String) -> Bool {
        !fingerprint.hasPrefix(SourceFingerprint.prefix) && compute() == fingerprint
    }

    /// Equal datasets have equal fingerprints of the present rule; that is what is compared.
    package static func == (a: EarlierFingerprint, b: EarlierFingerprint) -> Bool { true }
}
