import Records
import Testing

@Suite struct WatchChannelTests {
    private static let secret = WatchSecret(bytes: Array(0..<32))

    /// Both ends of an open connection.
    private func openPair(
        rank number: Int = 3, nonces: (rank: UInt8, watcher: UInt8) = (1, 2)
    ) throws -> (rank: WatchChannel, watcher: WatchChannel) {
        var rank = WatchChannel(
            .rank(number), secret: Self.secret, nonce: Array(repeating: nonces.rank, count: 32))
        var watcher = WatchChannel(
            .watcher, secret: Self.secret, nonce: Array(repeating: nonces.watcher, count: 32))
        let challenge = try watcher.receive(rank.greeting).reply
        let proof = try rank.receive(challenge).reply
        let last = try watcher.receive(proof)
        #expect(last == WatchChannel.Received())
        return (rank, watcher)
    }

    @Test func bothSidesOpen() throws {
        var (rank, watcher) = try openPair()
        #expect(rank.isOpen && watcher.isOpen && watcher.rank == 3)
        for text in ["", "tick", String(repeating: "x", count: WatchChannel.longestPayload)] {
            let payload = Array(text.utf8)
            #expect(try rank.receive(watcher.seal(payload)).payloads == [payload])
            #expect(try watcher.receive(rank.seal(payload)).payloads == [payload])
        }
    }

    @Test func bytesMayComeOneByOneOrAllTogether() throws {
        var (rank, watcher) = try openPair()
        let stream = (0..<5).flatMap { rank.seal([UInt8($0), 7]) }
        var second = watcher
        #expect(try watcher.receive(stream).payloads.map(\.first) == [0, 1, 2, 3, 4])
        let single = try stream.flatMap { try second.receive([$0]).payloads }
        #expect(single.map(\.first) == [0, 1, 2, 3, 4])
    }

    /// Before the proof, an unauthenticated peer receives nothing, or one challenge of a fixed size.
    @Test func nothingElseIsSentBeforeTheProof() throws {
        var watcher = WatchChannel(.watcher, secret: Self.secret)
        #expect(watcher.greeting.isEmpty)
        let hello = WatchChannel(.rank(1), secret: Self.secret).greeting
        #expect(hello.count == WatchChannel.helloBytes)
        #expect(try watcher.receive(hello.dropLast()).reply.isEmpty)
        #expect(try watcher.receive(hello.suffix(1)).reply.count == WatchChannel.challengeBytes)
        #expect(!watcher.isOpen)
    }

    @Test(arguments: [UInt8(ascii: "\n"), UInt8(ascii: "{"), 0])
    func aStrangersFirstByteIsEnough(byte: UInt8) {
        var watcher = WatchChannel(.watcher, secret: Self.secret)
        #expect(throws: WatchChannel.Failure.foreign) { try watcher.receive([byte]) }
    }

    @Test func anotherSecretOpensNothing() throws {
        let other = WatchSecret(bytes: Array(1..<33))
        var rank = WatchChannel(.rank(1), secret: other)
        var watcher = WatchChannel(.watcher, secret: Self.secret)
        let challenge = try watcher.receive(rank.greeting).reply
        // The rank detects that this is not its job's watcher and sends no proof.
        #expect(throws: WatchChannel.Failure.unauthenticated) { try rank.receive(challenge) }
        #expect(throws: WatchChannel.Failure.unauthenticated) {
            try watcher.receive(Array(repeating: 0, count: WatchChannel.proofBytes))
        }
    }

    @Test func aRecordedExchangeProvesNothing() throws {
        var rank = WatchChannel(.rank(1), secret: Self.secret)
        var watcher = WatchChannel(.watcher, secret: Self.secret)
        let hello = rank.greeting
        let challenge = try watcher.receive(hello).reply
        let proof = try rank.receive(challenge).reply
        _ = try watcher.receive(proof)
        // Replayed to another watcher of the same job, which uses another nonce.
        var second = WatchChannel(.watcher, secret: Self.secret)
        _ = try second.receive(hello)
        #expect(throws: WatchChannel.Failure.unauthenticated) { try second.receive(proof) }
        // Replayed to another rank process.
        var other = WatchChannel(.rank(1), secret: Self.secret)
        #expect(throws: WatchChannel.Failure.unauthenticated) { try other.receive(challenge) }
    }

    @Test func aSidesOwnBytesProveNothingToIt() throws {
        var rank = WatchChannel(.rank(1), secret: Self.secret)
        let hello = rank.greeting
        #expect(throws: WatchChannel.Failure.unauthenticated) { try rank.receive(hello + hello) }
        var watcher = WatchChannel(.watcher, secret: Self.secret)
        let challenge = try watcher.receive(hello).reply
        #expect(throws: WatchChannel.Failure.unauthenticated) {
            try watcher.receive(challenge.suffix(WatchChannel.proofBytes))
        }
        // A message reflected to its sender.
        var (open, _) = try openPair()
        let own = open.seal([1, 2, 3])
        #expect(throws: WatchChannel.Failure.forged) { try open.receive(own) }
    }

    /// The proof is valid only for the rank in the hello message.
    @Test func aRankCannotBeExchanged() throws {
        var rank = WatchChannel(.rank(1), secret: Self.secret)
        var watcher = WatchChannel(.watcher, secret: Self.secret)
        var hello = rank.greeting
        hello[11] = 2
        let challenge = try watcher.receive(hello).reply
        #expect(watcher.rank == 2)
        #expect(throws: WatchChannel.Failure.unauthenticated) { try rank.receive(challenge) }
    }

    @Test func messagesCannotBeChangedRepeatedOrLeftOut() throws {
        let (rank, watcher) = try openPair()
        var sender = watcher
        let (first, second) = (sender.seal([1]), sender.seal([2]))
        for index in first.indices {
            var receiver = rank
            var changed = first
            changed[index] ^= 1
            // An increased length waits for more bytes; no payload is returned.
            let found = try? receiver.receive(changed)
            #expect(found?.payloads.isEmpty != false)
        }
        var receiver = rank
        #expect(try receiver.receive(first).payloads == [[1]])
        #expect(throws: WatchChannel.Failure.forged) { try receiver.receive(first) }
        receiver = rank
        #expect(throws: WatchChannel.Failure.forged) { try receiver.receive(second) }
        // A message of another connection of the same rank.
        var (other, _) = try openPair(nonces: (1, 9))
        #expect(throws: WatchChannel.Failure.forged) { try other.receive(first) }
    }

    @Test func aLongMessageIsRefusedByItsLength() throws {
        var (_, watcher) = try openPair()
        #expect(throws: WatchChannel.Failure.tooLong) { try watcher.receive([0x04, 0x01]) }
    }

    /// RFC 4231, test cases 1 and 2.
    @Test(arguments: [
        (
            [UInt8](repeating: 0x0b, count: 20), "Hi There",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        ),
        (
            Array("Jefe".utf8), "what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        ),
    ]) func theCodeIsTheStandards(key: [UInt8], text: String, expected: String) {
        let code = HMACSHA256.code(of: Array(text.utf8), key: key)
        #expect(code.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() == expected)
        #expect(HMACSHA256.areEqual(code, code) && !HMACSHA256.areEqual(code, code.dropLast()))
    }
}
