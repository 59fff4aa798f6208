import Records

private let secret = WatchSecret(bytes: Array(repeating: 7, count: 32))
private let nonces = (rank: [UInt8](repeating: 1, count: 32), watcher: [UInt8](repeating: 2, count: 32))

/// What a stranger sends who does not know the secret. The first byte chooses at which end and when, the second how the
/// bytes arrive.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = Array(UnsafeBufferPointer(start: start, count: count))
    guard input.count > 2 else { return 0 }
    let stream = input.dropFirst(2)
    var channel = opened(input[0])
    let (before, peer) = (channel.isOpen, opened(input[0]).rank)
    var copy = channel
    let whole = outcome(of: &channel, [stream])
    let size = 1 + Int(input[1]) % 80
    let pieces = stride(from: stream.startIndex, to: stream.endIndex, by: size).map {
        stream[$0..<min($0 + size, stream.endIndex)]
    }
    let cut = outcome(of: &copy, pieces)
    precondition(whole == cut, "how bytes arrive makes a difference")
    precondition(channel.isOpen == before, "a connection has opened without the secret")
    precondition(whole.received.payloads.isEmpty, "a message was taken without the secret")
    precondition(whole.received.reply.count <= WatchChannel.challengeBytes, "too much was sent to a stranger")
    precondition(peer == nil || channel.rank == peer, "the rank has changed")
    return 0
}

private struct Outcome: Equatable {
    var received = WatchChannel.Received()
    var failure: WatchChannel.Failure?
}

private func outcome(of channel: inout WatchChannel, _ pieces: [ArraySlice<UInt8>]) -> Outcome {
    var outcome = Outcome()
    for piece in pieces {
        do throws(WatchChannel.Failure) {
            let received = try channel.receive(piece)
            outcome.received.reply += received.reply
            outcome.received.payloads += received.payloads
        } catch {
            outcome.failure = error
            break
        }
    }
    // What a connection that fails would have sent is never sent.
    if outcome.failure != nil { outcome.received.reply = [] }
    return outcome
}

/// One end of a connection: fresh, after the hello, or open.
private func opened(_ choice: UInt8) -> WatchChannel {
    var rank = WatchChannel(.rank(3), secret: secret, nonce: nonces.rank)
    var watcher = WatchChannel(.watcher, secret: secret, nonce: nonces.watcher)
    do throws(WatchChannel.Failure) {
        if choice % 5 == 0 { return watcher }
        if choice % 5 == 1 { return rank }
        let challenge = try watcher.receive(rank.greeting).reply
        if choice % 5 == 2 { return watcher }
        let proof = try rank.receive(challenge).reply
        _ = try watcher.receive(proof)
    } catch {
        fatalError("\(error)")
    }
    return choice % 5 == 3 ? watcher : rank
}
