import Communication
import Foundation

/// What a host says of itself before ranks are started on it.
package struct HostReport: Codable, Sendable, Equatable {
    package struct Interface: Codable, Sendable, Equatable {
        package var name: String
        package var address: String
        package var prefix: Int
    }

    package var host: String
    package var programVersion: String
    /// Of the program's file.
    package var programChecksum: String
    package var mpi: String
    package var processor: String
    package var usableCores: Int
    package var memoryDomains: Int
    /// Whether all processors may be used, without a limit on their time.
    package var isWhole: Bool
    /// MiB that are free for programs.
    package var freeMemoryMiB: Int
    /// Seconds since 1970.
    package var time: Double
    package var interfaces: [Interface]
    /// For each peer that was asked for, the address that this host would send from; nil where it cannot.
    package var routes: [String: String]
    /// What the file says that proves a shared folder; nil where it is not there.
    package var marker: String?
    /// MiB free under the folder that was asked for.
    package var freeDiskMiB: Int?

    /// This host's.
    ///
    /// - Parameters:
    ///   - peers: names of the hosts to find a way to.
    ///   - marker: a file to read.
    package static func own(peers: [String], marker: String?) -> HostReport {
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
