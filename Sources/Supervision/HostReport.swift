import Communication
import Foundation

/// A host's description of itself, which is collected before ranks are started on it.
package struct HostReport: Codable, Sendable, Equatable {
    package struct Interface: Codable, Sendable, Equatable {
        package var name: String
        package var address: String
        package var prefix: Int
    }

    package var host: String
    package var programVersion: String
    /// Checksum of the program's file.
    package var programChecksum: String
    package var mpi: String
    package var processor: String
    package var usableCores: Int
    package var memoryDomains: Int
    /// Whether the process may use all processors, without a CPU time limit.
    package var isWhole: Bool
    /// Available memory in MiB.
    package var freeMemoryMiB: Int
    /// Seconds since 1970.
    package var time: Double
    package var interfaces: [Interface]
    /// For each requested peer, the local address from which this host would send to it; missing if there is
    /// no route.
    package var routes: [String: String]
    /// The contents of the marker file, which shows whether the folder is shared; nil if the file is missing.
    package var marker: String?
    /// Free disk space in MiB in the requested folder.
    package var freeDiskMiB: Int?

    /// Creates the report of this host.
    ///
    /// - Parameters:
    ///   - peers: names of the hosts to find routes to.
    ///   - marker: the marker file to read.
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

    /// Available memory in KiB.
    private static func freeMemory() -> Int {
        let line = KernelFiles(root: "/").lines("proc/meminfo").first { $0.hasPrefix("MemAvailable:") }
        return line?.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) } ?? 0
    }
}
