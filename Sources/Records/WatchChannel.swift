/// One end of an authenticated connection between a rank and the watcher on rank 0, without the socket: bytes that
/// arrive go in, bytes to send come out.
///
///     rank → watcher    hello       magic, rank, the rank's nonce                       44 bytes
///     watcher → rank    challenge   the watcher's nonce, HMAC(secret, watcher | …)       64 bytes
///     rank → watcher    proof       HMAC(secret, rank | …)                               32 bytes
///     both              messages    length, payload, HMAC(session key, count | …)        18 bytes + payload
///
/// Both sides prove that they know the secret. Each MAC covers the rank and both nonces, which are fresh, so that a
/// recorded exchange proves nothing; and the role, so that a side's own bytes prove nothing to it. Each message carries
/// a MAC of its position in the stream under a key of its direction, so that nothing can be inserted, repeated or left
/// out. Before the proof the watcher reads and sends the frames above and nothing else.
///
/// Any error is final: the connection has to be closed.
package struct WatchChannel: Sendable {
    /// Which end of the connection this is.
    package enum Role: Sendable, Equatable {
        case watcher
        case rank(Int)
    }

    /// What came of some bytes.
    package struct Received: Sendable, Equatable {
        /// To be sent to the other side.
        package var reply: [UInt8] = []
        /// Of the messages that are complete.
        package var payloads: [[UInt8]] = []

        package init() {}
    }

    /// Why the other side is not served.
    package enum Failure: Error, Sendable, Equatable {
        /// It speaks another protocol.
        case foreign
        /// It does not know the secret, or repeats what somebody else has sent.
        case unauthenticated
        /// A message was changed, inserted, repeated or left out.
        case forged
        /// A message is longer than any of ours.
        case tooLong
    }

    private enum Stage: Equatable {
        case awaitsHello, awaitsChallenge, awaitsProof, open
    }

    package let role: Role
    /// The rank's number: the other side's as soon as it has said hello, and proven once `isOpen`.
    package private(set) var rank: Int?
    private let secret: WatchSecret
    private let nonce: [UInt8]
    private var stage: Stage
    /// Magic, rank and both nonces, once they are known.
    private var transcript: [UInt8]
    private var sender = Direction()
    private var receiver = Direction()
    /// Bytes that are part of an incomplete frame.
    private var incoming: [UInt8] = []

    /// A stream of messages in one direction.
    private struct Direction {
        package var key: [UInt8] = []
        var count: UInt64 = 0
    }

    static let magic = Array("DTwatch1".utf8)
    static let nonceBytes = 32
    package static let helloBytes = magic.count + 4 + nonceBytes
    package static let challengeBytes = nonceBytes + HMACSHA256.byteCount
    package static let proofBytes = HMACSHA256.byteCount
    /// Of one message's payload.
    package static let longestPayload = 1024
    /// HMAC-SHA256 cut to 128 bits (RFC 2104, section 5).
    static let tagBytes = 16

    package init(_ role: Role, secret: WatchSecret) {
        self.init(role, secret: secret, nonce: WatchSecret.randomBytes(Self.nonceBytes))
    }

    /// - Parameter nonce: 32 bytes that were never used before; chosen by tests alone.
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

    /// Both sides have proven that they know the secret.
    package var isOpen: Bool { stage == .open }

    /// What a rank sends first; a watcher sends nothing until it is asked.
    package var greeting: [UInt8] { role == .watcher ? [] : transcript }

    // MARK: Receiving

    /// Takes bytes that have arrived.
    package mutating func receive(_ bytes: some Sequence<UInt8>) throws(Failure) -> Received {
        incoming.append(contentsOf: bytes)
        var received = Received()
        // Frames are taken from `used` on, and removed from the front once.
        var used = 0
        defer { incoming.removeFirst(used) }
        while true {
            let rest = incoming[used...]
            switch stage {
            case .awaitsHello:
                // A stranger's first byte is enough.
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

    /// The MAC of this exchange for one purpose.
    private func derive(_ purpose: String) -> [UInt8] {
        HMACSHA256.code(of: Array(purpose.utf8) + [0] + transcript, key: secret.bytes)
    }

    /// The first message; nil where it is not complete.
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

    /// The bytes that carry a message to the other side, in the order in which they have to be sent.
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

    /// The most significant byte first.
    private static func bytes(_ number: some FixedWidthInteger) -> [UInt8] {
        withUnsafeBytes(of: number.bigEndian) { Array($0) }
    }
}
