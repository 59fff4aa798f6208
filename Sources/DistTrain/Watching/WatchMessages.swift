import Foundation

/// What a rank tells the one that watches.
struct RankMessage: Codable {
    struct Hello: Codable {
        /// Drawn at random by rank 0: whoever does not know it is none of ours.
        var token: String
        var rank: Int
        var host: String
        var pid: Int32
    }
    var hello: Hello?
    var reading: RankActivity.Reading?
    /// The rank ends, in good order.
    var bye: Bool?
}

/// What the one that watches tells the ranks: every second that it lives, at last that the job ends.
struct WatcherMessage: Codable {
    var tick: Int?
    /// In good order.
    var bye: Bool?
    /// At once, since others are lost.
    var end: String?
}

/// Where rank 0 can be reached.
struct WatcherAddress: Codable {
    var host: String
    var addresses: [String]
    var port: UInt16
    var token: String
}

/// Time between two messages, and between two looks, in seconds.
enum WatchPace {
    static let beat = 1.0
    static let look = 0.25
    /// Who was stopped for longer has not seen what the others did meanwhile, and judges nobody by it.
    static let doze = 5.0
}
