import Foundation

/// The system's error text for an `errno` value.
package func systemReason(_ code: Int32 = errno) -> String { String(cString: strerror(code)) }

/// The error text behind an error of Foundation's file functions, whose own message often gives no reason
/// ("The operation could not be completed").
package func systemReason(of error: any Error) -> String {
    let code = systemCode(of: error)
    return code == 0 ? error.localizedDescription : String(cString: strerror(code))
}

/// The `errno` behind an error of Foundation's file functions; 0 if there is none.
package func systemCode(of error: any Error) -> Int32 {
    // On Linux the underlying error is a Swift error; only the cast makes it an NSError.
    let cause = (error as NSError).userInfo[NSUnderlyingErrorKey] as? any Error
    for error in [cause ?? error, error] as [NSError] where error.domain == NSPOSIXErrorDomain {
        return Int32(error.code)
    }
    return 0
}
