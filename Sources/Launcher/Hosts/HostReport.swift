import DistTrain
import Foundation

/// What a host says of itself before ranks are started on it.
public struct HostReport: Codable, Sendable, Equatable {
    public struct Interface: Codable, Sendable, Equatable {
        public var name: String
        public var address: String
        public var prefix: Int
    }

    public var host: String
    public var programVersion: String
    /// Of the program's file.
    public var programChecksum: String
    public var mpi: String
    public var processor: String
    public var usableCores: Int
    public var memoryDomains: Int
    /// Whether all processors may be used, without a limit on their time.
    public var isWhole: Bool
    /// MiB that are free for programs.
    public var freeMemoryMiB: Int
    /// Seconds since 1970.
    public var time: Double
    public var interfaces: [Interface]
    /// For each peer that was asked for, the address that this host would send from; nil where it cannot.
    public var routes: [String: String]
    /// What the file says that proves a shared folder; nil where it is not there.
    public var marker: String?
    /// MiB free under the folder that was asked for.
    public var freeDiskMiB: Int?

    /// This host's.
    ///
    /// - Parameters:
    ///   - peers: names of the hosts to find a way to.
    ///   - marker: a file to read.
    public static func own(peers: [String], marker: String?) -> HostReport {
        let machine = Machine()
        let program = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        var disk = statvfs()
        let hasDisk = marker.map { statvfs(($0 as NSString).deletingLastPathComponent, &disk) == 0 } ?? false
        return HostReport(
            host: ProcessInfo.processInfo.hostName, programVersion: Program.version,
            programChecksum: Program.checksum(of: program), mpi: Program.mpiVersion,
            processor: Program.processor, usableCores: machine.usableCores,
            memoryDomains: machine.memoryDomains, isWhole: machine.isWhole && machine.quota == nil,
            freeMemoryMiB: freeMemory() >> 10, time: Date().timeIntervalSince1970,
            interfaces: Network.interfaces(),
            routes: Dictionary(
                uniqueKeysWithValues: Set(peers).compactMap { peer in
                    Network.sourceAddress(towards: peer).map { (peer, $0) }
                }),
            marker: marker.flatMap { FileManager.default.contents(atPath: $0) }.map {
                String(decoding: $0, as: UTF8.self)
            },
            freeDiskMiB: hasDisk ? Int((UInt64(disk.f_bavail) * UInt64(disk.f_frsize)) >> 20) : nil)
    }

    /// KiB.
    private static func freeMemory() -> Int {
        let line = KernelFiles(root: "/").lines("proc/meminfo").first { $0.hasPrefix("MemAvailable:") }
        return line?.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) } ?? 0
    }
}
