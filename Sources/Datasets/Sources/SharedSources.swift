import Communication
import Foundation
import Imaging

/// Image sources that all ranks open together: what must be decompressed is decompressed once per host, and all
/// ranks together read all bytes once for the fingerprint.
package struct SharedSources {
    private let skipBad: Bool
    private let limits: ImageLimits
    private var sources: [String: Result<any ImageSource, ImageError>] = [:]

    /// Collective: all ranks pass the same sources in the same order. A source that cannot be opened throws
    /// its error in `open`.
    ///
    /// - Parameters:
    ///   - specifications: see ``openSource(_:size:skipBad:limits:)``. Folders written by `prepare` are
    ///     ignored.
    ///   - readsContent: whether fingerprints will be needed.
    ///   - allowsStandardInput: whether `-` is a source.
    package init(
        _ specifications: [String], skipBad: Bool, limits: ImageLimits = .standard,
        readsContent: Bool = true, allowsStandardInput: Bool = false, on communicator: Communicator
    ) throws {
        (self.skipBad, self.limits) = (skipBad, limits)
        for specification in specifications where !Self.isDrawn(specification) {
            let input = Result { () throws(ImageError) in
                try SourceInput(specification, allowsStandardInput: allowsStandardInput)
            }
            let spool = try Self.share(input, communicator)
            let source = Result { () throws(ImageError) in
                try openImageSource(input.get(), spool.get(), skipBad: skipBad, limits: limits)
            }
            let isOpen = try communicator.allAgree((try? source.get()) != nil)
            if isOpen, readsContent { try source.get().readContent(on: communicator) }
            sources[specification] = source
        }
    }

    /// Returns a shared source, or opens the source here if it is not shared.
    ///
    /// - Parameter size: side of generated faces in pixels.
    package func open(_ specification: String, size: Int) throws(ImageError) -> any ImageSource {
        if let source = sources[specification] { return try source.get() }
        return try openSource(specification, size: size, skipBad: skipBad, limits: limits)
    }

    /// The sources without the images that cannot be decoded. Collective; `note` is called on rank 0.
    package func leavingOutUndecodable(
        on communicator: Communicator, note: (String) -> Void
    ) throws -> SharedSources {
        var result = self
        for specification in sources.keys.sorted() {
            let source = try? sources[specification]?.get()
            guard try communicator.allAgree(source != nil), let source else { continue }
            result.sources[specification] = .success(
                try source.leavingOutUndecodable(on: communicator, note: note))
        }
        return result
    }

    private static func isDrawn(_ specification: String) -> Bool {
        specification.hasPrefix("synthetic-faces")
    }

    // MARK: Spools

    /// Describes the spool that a host's first rank has written.
    private struct Offer: Codable {
        let host: String
        /// nil if nothing was to be decompressed or if that failed, with the reason in `problem`.
        var path: String?
        var device: UInt64 = 0
        var inode: UInt64 = 0
        /// The parts and their places.
        var parts: [Spool.Part] = []
        var ends: [Int] = []
        var problem: ImageProblem?
    }

    private struct ImageProblem: Codable {
        let name: String
        let detail: String
        let code: Int32
    }

    /// Decompresses on the first rank of each host what cannot be read at any position; the host's other ranks
    /// open the result. Standard input is read by rank 0. Collective.
    ///
    /// The file is unlinked, so that it is deleted with its last reader; other processes of the same user
    /// open it through /proc.
    ///
    /// - Returns: nil if nothing had to be decompressed; the error if that failed.
    private static func share(
        _ input: Result<SourceInput, ImageError>, _ communicator: Communicator
    ) throws -> Result<Spool?, ImageError> {
        let parts = (try? input.get().spooled) ?? []
        let isFirst = communicator.localRank == 0
        let readsStandardInput = parts.contains(.standardInput)
        var own: Result<Spool?, ImageError> = .success(nil)
        var offer = Offer(host: communicator.hostName)
        let hosts = readsStandardInput ? Set(try communicator.allGather(communicator.hostName)).count : 0
        if readsStandardInput, hosts > 1 {
            own = .failure(
                ImageError(
                    .inaccessible, name: "-",
                    "standard input can only be read on the host of rank 0, but the ranks are on \(hosts) hosts; run on "
                        + "one host, or write the archive to a file on a file system that all hosts share"))
        } else if isFirst, !parts.isEmpty {
            own = Result { () throws(ImageError) in try Spool(parts) }
            switch own {
            case .success(let spool?):
                offer.path = "/proc/\(getpid())/fd/\(spool.file.descriptor)"
                (offer.device, offer.inode) = (spool.file.identity.device, spool.file.identity.inode)
                offer.parts = parts.filter { spool.parts[$0] != nil }
                offer.ends = offer.parts.flatMap {
                    spool.parts[$0].map { [$0.lowerBound, $0.upperBound] } ?? []
                }
            case .success(nil): break
            case .failure(let error):
                offer.problem = ImageProblem(name: error.name, detail: error.detail, code: error.code)
            }
        }
        let offers = try communicator.allGather(isFirst ? offer : nil).compactMap { $0 }
            .filter { $0.host == communicator.hostName }
        if !isFirst, !parts.isEmpty, case .success = own {
            own = Result { () throws(ImageError) in try take(offers, parts) }
        }
        // The first rank keeps its file open until the others have opened it.
        try communicator.barrier()
        return own
    }

    /// Opens the file that the host's first rank has written.
    private static func take(_ offers: [Offer], _ parts: [Spool.Part]) throws(ImageError) -> Spool {
        for offer in offers {
            if let problem = offer.problem {
                throw ImageError(.badArchive, name: problem.name, problem.detail, code: problem.code)
            }
            guard let path = offer.path else { continue }
            let descriptor = Foundation.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
            guard descriptor >= 0 else { continue }
            let file = try ReadOnlyFile(adopting: descriptor, name: "the temporary file of another rank")
            // A process in another container may have the same process ID.
            guard file.identity.device == offer.device, file.identity.inode == offer.inode else { continue }
            var places: [Spool.Part: Range<Int>] = [:]
            for (index, part) in offer.parts.enumerated() {
                places[part] = offer.ends[2 * index]..<offer.ends[2 * index + 1]
            }
            return Spool(file, places)
        }
        guard !parts.contains(.standardInput) else {
            throw ImageError(
                .inaccessible, name: "-",
                "the ranks cannot share standard input, because /proc does not show the files of rank 0; write the "
                    + "archive to a file, or use one rank")
        }
        // If /proc is inaccessible or shows other processes, each rank decompresses its own copy.
        return try Spool(parts)
    }
}
