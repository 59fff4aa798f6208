import Foundation

/// The folder that contains the runs of `verify-resume`.
package struct VerifyResumeFolder {
    package let path: String
    /// Whether the user named the folder; such a folder is never removed.
    private let isNamed: Bool
    /// The parent folder if it was created too.
    private let madeAbove: String?

    /// Creates the folder, or checks that an existing one is empty.
    package init(_ named: String?, name: String) throws {
        isNamed = named != nil
        let id = String(UInt32.random(in: 0x1000_0000...UInt32.max), radix: 16)
        path = named ?? "runs/verify-resume-\(name)-\(id)"
        let files = FileManager.default
        guard (try? files.contentsOfDirectory(atPath: path))?.isEmpty ?? !files.fileExists(atPath: path)
        else {
            throw LaunchError(
                "\(path): is not empty, expected a new or empty folder; choose another --output")
        }
        let above = (path as NSString).deletingLastPathComponent
        madeAbove = above.isEmpty || files.fileExists(atPath: above) ? nil : above
        do {
            try files.createDirectory(atPath: path, withIntermediateDirectories: true)
        } catch {
            throw LaunchError(
                "\(path): cannot be created: \(error.localizedDescription); choose another --output")
        }
    }

    package func removeUnlessNamed() {
        guard !isNamed else { return }
        try? FileManager.default.removeItem(atPath: path)
        // rmdir succeeds only if the folder is empty.
        if let madeAbove { rmdir(madeAbove) }
    }
}
