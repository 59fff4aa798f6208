/// Why a report cannot be made, in one line.
public struct ReportError: ReportableError {
    public let path: String
    public let detail: String

    init(_ path: String, _ detail: String) { (self.path, self.detail) = (path, detail) }

    public var message: String { "\(path): \(detail)" }
    public var exitStatus: Int32 { ExitStatus.usage }
}
