import Communication
import Foundation
import Imaging

/// Image sources that all ranks open together: a compressed archive is decompressed once per host, and all
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
    package init(
        _ specifications: [String], skipBad: Bool, limits: ImageLimits = .standard,
        readsContent: Bool = true, on communicator: Communicator
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

    // MARK: Archives

    /// Describes the archive that a host's first rank has decompressed.
    private struct Offer: Codable {
        let host: String
        /// nil if the archive does not need decompression or could not be decompressed, with the reason in
        /// `problem`.
        var path: String?
        var device: UInt64 = 0
        var inode: UInt64 = 0
        var problem: String?
        var code: Int32 = 0
    }

    /// Decompresses a .gz archive on the first rank of each host; the host's other ranks open the result.
    /// Collective.
    ///
    /// The file is unlinked, so that it is deleted with its last reader; other processes of the same user
    /// open it through /proc.
    ///
    /// - Returns: nil if the file is not compressed; the error if the archive cannot be decompressed.
    private static func share(
        _ specification: String, _ communicator: Communicator
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

    /// The decompressed archive; nil if the file is not compressed.
    private static func inflated(_ specification: String) throws(ImageError) -> ReadOnlyFile? {
        var status = stat()
        guard stat(specification, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
        let file = try ReadOnlyFile(specification)
        return try Gzip.recognizes(file) ? Gzip.inflate(file) : nil
    }

    /// Opens the file that the host's first rank has decompressed.
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
            // A process in another container may have the same process ID.
            if file.identity.device == offer.device, file.identity.inode == offer.inode { return file }
        }
        // If /proc is inaccessible or shows other processes, each rank decompresses its own copy.
        return try inflated(specification)
    }
}
