import Support

/// Why a report cannot be made, in one line.
package struct ReportError: ReportableError {
    package let path: String
    package let detail: String

    init(_ path: String, _ detail: String) { (self.path, self.detail) = (path, detail) }

    package var message: String { "\(path): \(detail)" }
    package var exitStatus: Int32 { ExitStatus.usage }
}
