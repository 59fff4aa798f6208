import Communication
import Foundation
import Imaging

/// Image sources that all ranks open together: a compressed archive is inflated once on each host, and all bytes are read
/// once by all ranks together, for the fingerprint.
package struct SharedSources {
    private let skipBad: Bool
    private let limits: ImageLimits
    private var sources: [String: Result<any ImageSource, ImageError>] = [:]

    /// Collective: all ranks name the same sources in the same order. What cannot be opened is an error when it is asked
    /// for.
    ///
    /// - Parameters:
    ///   - specifications: as ``openSource(_:size:skipBad:limits:)`` knows them. Folders that `prepare` wrote are passed
    ///     over.
    ///   - readsContent: whether fingerprints will be asked for.
    package init(
        _ specifications: [String], skipBad: Bool, limits: ImageLimits = .standard,
        readsContent: Bool = true, on communicator: any Communicator
    ) throws {
        (self.skipBad, self.limits) = (skipBad, limits)
        for specification in specifications where !Self.isDrawn(specification) {
            let archive = try Self.share(specification, communicator)
            let source = Result { () throws(ImageError) in
                try openImageSource(
                    specification, size: 0, seed: 0, skipBad: skipBad, limits: limits, inflated: archive.get()
                )
            }
            let isOpen = try communicator.allAgree((try? source.get()) != nil)
            if isOpen, readsContent { try source.get().readContent(on: communicator) }
            sources[specification] = source
        }
    }

    /// The source, which is opened here if it is not one of those.
    ///
    /// - Parameter size: side of drawn faces.
    package func open(_ specification: String, size: Int) throws(ImageError) -> any ImageSource {
        if let source = sources[specification] { return try source.get() }
        return try openSource(specification, size: size, skipBad: skipBad, limits: limits)
    }

    /// The sources without the images that cannot be decoded. Collective; `note` is called on rank 0.
    package func leavingOutUndecodable(
        on communicator: any Communicator, note: (String) -> Void
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

    // MARK: Archives

    /// What a host's first rank says of the archive that it has inflated.
    private struct Offer: Codable {
        let host: String
        /// Nil where the archive could not be inflated, which `problem` explains, or need not be.
        var path: String?
        var device: UInt64 = 0
        var inode: UInt64 = 0
        var problem: String?
        var code: Int32 = 0
    }

    /// Inflates a .gz archive on the first rank of every host, and opens its file on the others. Collective.
    ///
    /// The file has no name, so that it vanishes with its last reader; other processes of the same user open it by way of
    /// /proc.
    ///
    /// - Returns: nil for what is not compressed; the error where the archive cannot be inflated.
    private static func share(
        _ specification: String, _ communicator: any Communicator
    ) throws -> Result<ReadOnlyFile?, ImageError> {
        let isFirst = communicator.localRank == 0
        var own: Result<ReadOnlyFile?, ImageError> = .success(nil)
        var offer = Offer(host: communicator.hostName)
        if isFirst {
            own = Result { () throws(ImageError) in try inflated(specification) }
            switch own {
            case .success(let file?):
                offer.path = "/proc/\(getpid())/fd/\(file.descriptor)"
                (offer.device, offer.inode) = (file.identity.device, file.identity.inode)
            case .success(nil): break
            case .failure(let error): (offer.problem, offer.code) = (error.detail, error.code)
            }
        }
        let offers = try communicator.allGather(isFirst ? offer : nil).compactMap { $0 }
            .filter { $0.host == communicator.hostName }
        if !isFirst { own = Result { () throws(ImageError) in try take(offers, of: specification) } }
        // The first rank keeps its file open until the others have opened it.
        try communicator.barrier()
        return own
    }

    /// The archive without its compression; nil for what is no compressed file.
    private static func inflated(_ specification: String) throws(ImageError) -> ReadOnlyFile? {
        var status = stat()
        guard stat(specification, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
        let file = try ReadOnlyFile(specification)
        return try Gzip.recognizes(file) ? Gzip.inflate(file) : nil
    }

    /// Opens what the host's first rank has inflated.
    private static func take(
        _ offers: [Offer], of specification: String
    ) throws(ImageError) -> ReadOnlyFile? {
        for offer in offers {
            if let problem = offer.problem {
                throw ImageError(.badArchive, name: specification, problem, code: offer.code)
            }
            guard let path = offer.path else { continue }
            let descriptor = Foundation.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
            guard descriptor >= 0 else { continue }
            let file = try ReadOnlyFile(adopting: descriptor, name: specification)
            // A process of another container may have the same number.
            if file.identity.device == offer.device, file.identity.inode == offer.inode { return file }
        }
        // Where /proc is closed, or shows other processes, each rank has a copy of its own.
        return try inflated(specification)
    }
}
