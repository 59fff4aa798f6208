import COpenSSL

/// One end of an authenticated connection between a rank and the watcher on rank 0, independent of the
/// socket: it takes received bytes and returns the bytes to send.
///
///     rank → watcher    hello       magic, rank, the rank's nonce                       44 bytes
///     watcher → rank    challenge   the watcher's nonce, HMAC(secret, watcher | …)       64 bytes
///     rank → watcher    proof       HMAC(secret, rank | …)                               32 bytes
///     both              messages    length, payload, HMAC(session key, count | …)        18 bytes + payload
///
/// Both sides prove that they have the secret. Each handshake MAC covers the rank and both nonces, which are
/// fresh, so that a replayed handshake is rejected, and also the role, so that a MAC cannot be reflected to
/// its sender. Each message carries a MAC over its sequence number under a per-direction key, so that
/// messages cannot be inserted, repeated or dropped. Before the proof, the watcher accepts and sends only the
/// frames above.
///
/// Every error is final: the connection has to be closed.
package struct WatchChannel: Sendable {
    /// Which end of the connection this is.
    package enum Role: Sendable, Equatable {
        case watcher
        case rank(Int)
    }

    /// The result of processing received bytes.
    package struct Received: Sendable, Equatable {
        /// Bytes to send to the peer.
        package var reply: [UInt8] = []
        /// Payloads of the complete messages.
        package var payloads: [[UInt8]] = []

        package init() {}
    }

    /// Why the peer is rejected.
    package enum Failure: Error, Sendable, Equatable {
        /// The peer uses a different protocol.
        case foreign
        /// The peer does not have the secret, or replays another peer's bytes.
        case unauthenticated
        /// A message was modified, inserted, repeated or dropped.
        case forged
        /// A message exceeds the maximum length.
        case tooLong
    }

    private enum Stage: Equatable {
        case awaitsHello, awaitsChallenge, awaitsProof, open
    }

    package let role: Role
    /// The rank's number. On the watcher it is set by the hello message and authenticated once `isOpen` is
    /// true.
    package private(set) var rank: Int?
    private let secret: WatchSecret
    private let nonce: [UInt8]
    private var stage: Stage
    /// Magic, rank and both nonces, as far as they are known.
    private var transcript: [UInt8]
    private var sender = Direction()
    private var receiver = Direction()
    /// Received bytes of an incomplete frame.
    private var incoming: [UInt8] = []

    /// State of the message stream in one direction.
    private struct Direction {
        var key: [UInt8] = []
        var count: UInt64 = 0
    }

    static let magic = Array("DTwatch1".utf8)
    static let nonceBytes = 32
    package static let helloBytes = magic.count + 4 + nonceBytes
    package static let challengeBytes = nonceBytes + HMACSHA256.byteCount
    package static let proofBytes = HMACSHA256.byteCount
    /// Maximum length of a message's payload, in bytes.
    package static let longestPayload = 1024
    /// HMAC-SHA256 truncated to 128 bits (RFC 2104, section 5).
    static let tagBytes = 16

    package init(_ role: Role, secret: WatchSecret) {
        self.init(role, secret: secret, nonce: WatchSecret.randomBytes(Self.nonceBytes))
    }

    /// - Parameter nonce: 32 bytes that were never used before; passed explicitly only by tests.
    package init(_ role: Role, secret: WatchSecret, nonce: [UInt8]) {
        precondition(nonce.count == Self.nonceBytes)
        (self.role, self.secret, self.nonce) = (role, secret, nonce)
        switch role {
        case .watcher: (stage, rank, transcript) = (.awaitsHello, nil, [])
        case .rank(let number):
            (stage, rank) = (.awaitsChallenge, number)
            transcript = Self.magic + Self.bytes(UInt32(number)) + nonce
        }
    }

    /// Whether the handshake is complete, so that both sides have proven that they have the secret.
    package var isOpen: Bool { stage == .open }

    /// The bytes that a rank sends first. A watcher sends nothing until it has received a hello message.
    package var greeting: [UInt8] { role == .watcher ? [] : transcript }

    // MARK: Receiving

    /// Processes received bytes.
    package mutating func receive(_ bytes: some Sequence<UInt8>) throws(Failure) -> Received {
        incoming.append(contentsOf: bytes)
        var received = Received()
        // Frames are consumed up to `used` and removed from the buffer once, at the end.
        var used = 0
        defer { incoming.removeFirst(used) }
        while true {
            let rest = incoming[used...]
            switch stage {
            case .awaitsHello:
                // Reject a foreign peer at the first byte that differs from the magic.
                guard rest.prefix(Self.magic.count).elementsEqual(Self.magic.prefix(rest.count)) else {
                    throw .foreign
                }
                guard rest.count >= Self.helloBytes else { return received }
                received.reply += challenge(to: rest.prefix(Self.helloBytes))
                used += Self.helloBytes
            case .awaitsChallenge:
                guard rest.count >= Self.challengeBytes else { return received }
                received.reply += try proof(for: rest.prefix(Self.challengeBytes))
                used += Self.challengeBytes
            case .awaitsProof:
                guard rest.count >= Self.proofBytes else { return received }
                guard HMACSHA256.areEqual(rest.prefix(Self.proofBytes), derive("rank")) else {
                    throw .unauthenticated
                }
                open()
                used += Self.proofBytes
            case .open:
                guard let (payload, count) = try message(in: rest) else { return received }
                received.payloads.append(payload)
                used += count
            }
        }
    }

    private mutating func challenge(to hello: ArraySlice<UInt8>) -> [UInt8] {
        let number = hello.dropFirst(Self.magic.count).prefix(4).reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
        rank = Int(number)
        transcript = hello + nonce
        stage = .awaitsProof
        return nonce + derive("watcher")
    }

    private mutating func proof(for challenge: ArraySlice<UInt8>) throws(Failure) -> [UInt8] {
        transcript += challenge.prefix(Self.nonceBytes)
        guard HMACSHA256.areEqual(challenge.dropFirst(Self.nonceBytes), derive("watcher")) else {
            throw .unauthenticated
        }
        let proof = derive("rank")
        open()
        return proof
    }

    private mutating func open() {
        let (toRank, toWatcher) = (derive("key to rank"), derive("key to watcher"))
        sender.key = role == .watcher ? toRank : toWatcher
        receiver.key = role == .watcher ? toWatcher : toRank
        stage = .open
    }

    /// The MAC of this handshake for one purpose.
    private func derive(_ purpose: String) -> [UInt8] {
        HMACSHA256.code(of: Array(purpose.utf8) + [0] + transcript, key: secret.bytes)
    }

    /// Decodes the first message in `bytes`; returns nil if it is incomplete.
    private mutating func message(
        in bytes: ArraySlice<UInt8>
    ) throws(Failure) -> (payload: [UInt8], count: Int)? {
        guard bytes.count >= 2 else { return nil }
        let length = bytes.prefix(2).reduce(0) { $0 << 8 | Int($1) }
        guard length <= Self.longestPayload else { throw .tooLong }
        let count = 2 + length + Self.tagBytes
        guard bytes.count >= count else { return nil }
        let tag = tag(bytes.prefix(2 + length), receiver)
        guard HMACSHA256.areEqual(bytes.prefix(count).suffix(Self.tagBytes), tag) else { throw .forged }
        receiver.count += 1
        return (Array(bytes.dropFirst(2).prefix(length)), count)
    }

    // MARK: Sending

    /// Encodes a message. The returned byte strings must be sent in the order of the calls.
    package mutating func seal(_ payload: [UInt8]) -> [UInt8] {
        precondition(isOpen, "a message on a connection that is not authenticated")
        precondition(payload.count <= Self.longestPayload, "a message of \(payload.count) bytes")
        let frame = [UInt8(payload.count >> 8), UInt8(payload.count & 0xff)] + payload
        defer { sender.count += 1 }
        return frame + tag(frame[...], sender)
    }

    private func tag(_ frame: ArraySlice<UInt8>, _ direction: Direction) -> ArraySlice<UInt8> {
        HMACSHA256.code(of: Self.bytes(direction.count) + frame, key: direction.key).prefix(Self.tagBytes)
    }

    /// The bytes of an integer in big-endian order.
    private static func bytes(_ number: some FixedWidthInteger) -> [UInt8] {
        withUnsafeBytes(of: number.bigEndian) { Array($0) }
    }
}

/// 32 random bytes that only the ranks of one start of a job share.
///
/// Rank 0 generates them and broadcasts them over MPI. They are never stored in a file, in the environment or
/// on a command line.
package struct WatchSecret: Sendable, Codable, Equatable {
    let bytes: [UInt8]

    static let byteCount = 32

    /// Generated by the system's random number generator, getrandom(2).
    package static func random() -> WatchSecret { WatchSecret(bytes: randomBytes(byteCount)) }

    /// - Parameter bytes: 32 bytes; for tests.
    package init(bytes: [UInt8]) {
        precondition(bytes.count == Self.byteCount)
        self.bytes = bytes
    }

    /// Random bytes from the system's generator, getrandom(2).
    static func randomBytes(_ count: Int) -> [UInt8] {
        var generator = SystemRandomNumberGenerator()
        return (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
    }
}

/// HMAC-SHA256 (RFC 2104 with the SHA-256 of FIPS 180-4).
package enum HMACSHA256 {
    static let byteCount = 32

    package static func code(of message: [UInt8], key: [UInt8]) -> [UInt8] {
        var code = [UInt8](repeating: 0, count: byteCount)
        let result = HMAC(EVP_sha256(), key, Int32(key.count), message, message.count, &code, nil)
        precondition(result != nil, "libcrypto has no HMAC-SHA256")
        return code
    }

    /// Compares in constant time.
    package static func areEqual(_ a: some Collection<UInt8>, _ b: some Collection<UInt8>) -> Bool {
        let (a, b) = (Array(a), Array(b))
        return a.count == b.count && CRYPTO_memcmp(a, b, a.count) == 0
    }
}
