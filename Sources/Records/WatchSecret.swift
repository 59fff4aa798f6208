import COpenSSL

/// 32 random bytes that the ranks of one start of a job share, and nobody else.
///
/// Rank 0 draws them and broadcasts them over MPI. They are never in a file, in the environment or on a command line.
package struct WatchSecret: Sendable, Codable, Equatable {
    let bytes: [UInt8]

    static let byteCount = 32

    /// Drawn by the system's generator: getrandom(2).
    package static func random() -> WatchSecret { WatchSecret(bytes: randomBytes(byteCount)) }

    /// - Parameter bytes: 32, for tests.
    package init(bytes: [UInt8]) {
        precondition(bytes.count == Self.byteCount)
        self.bytes = bytes
    }

    /// From the system's generator, getrandom(2).
    static func randomBytes(_ count: Int) -> [UInt8] {
        var generator = SystemRandomNumberGenerator()
        return (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
    }
}

/// HMAC-SHA256: RFC 2104 with FIPS 180-4's SHA-256.
package enum HMACSHA256 {
    static let byteCount = 32

    package static func code(of message: [UInt8], key: [UInt8]) -> [UInt8] {
        var code = [UInt8](repeating: 0, count: byteCount)
        let result = HMAC(EVP_sha256(), key, Int32(key.count), message, message.count, &code, nil)
        precondition(result != nil, "libcrypto has no HMAC-SHA256")
        return code
    }

    /// Compares in a time that does not depend on where the two differ.
    package static func areEqual(_ a: some Collection<UInt8>, _ b: some Collection<UInt8>) -> Bool {
        let (a, b) = (Array(a), Array(b))
        return a.count == b.count && CRYPTO_memcmp(a, b, a.count) == 0
    }
}
