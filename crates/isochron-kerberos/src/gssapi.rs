//! The part of GSS-API (RFC 2744, and MIT's `gss_acquire_cred_from`) that accepting
//! takes, as the library's headers declare it.
//!
//! What holds: everything that the library gives is given back to it, once; nothing is
//! kept of what it was lent.

#![allow(
    unsafe_code,
    reason = "a C library; each use says why it may be used so"
)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use libloading::Library;

use crate::{Accepted, KerberosError};

/// MIT's library, whose interface has been this since 1.11.
pub const LIBRARY: &str = "libgssapi_krb5.so.2";

/// `GSS_C_ACCEPT`.
const ACCEPT: c_int = 2;
/// `GSS_S_CONTINUE_NEEDED`.
const CONTINUE_NEEDED: u32 = 1;
/// Routine and calling errors (RFC 2744 §3.9.1).
const ERRORS: u32 = 0xffff_0000;
/// `GSS_C_GSS_CODE`, `GSS_C_MECH_CODE`.
const GSS_CODE: c_int = 1;
const MECH_CODE: c_int = 2;

/// `gss_buffer_desc`.
#[repr(C)]
struct Buffer {
    length: usize,
    value: *mut c_void,
}

impl Buffer {
    const fn empty() -> Self {
        Self {
            length: 0,
            value: ptr::null_mut(),
        }
    }
}

/// `gss_OID_desc`.
#[repr(C)]
struct Oid {
    length: u32,
    elements: *const c_void,
}

/// Kerberos' mechanism, 1.2.840.113554.1.2.2 (RFC 4121 §1): others that the library may
/// have say otherwise who somebody is.
const KERBEROS: &[u8] = b"\x2a\x86\x48\x86\xf7\x12\x01\x02\x02";

/// `gss_key_value_element_desc`, `gss_key_value_set_desc`.
#[repr(C)]
struct KeyValue {
    key: *const c_char,
    value: *const c_char,
}

#[repr(C)]
struct KeyValues {
    count: u32,
    elements: *mut KeyValue,
}

/// `gss_name_t`, `gss_cred_id_t`, `gss_ctx_id_t`: pointers to what nobody sees.
type Handle = *mut c_void;

type AcquireCredFrom = unsafe extern "C" fn(
    *mut u32,
    Handle,
    u32,
    *const c_void,
    c_int,
    *const KeyValues,
    *mut Handle,
    *mut *mut c_void,
    *mut u32,
) -> u32;
type AcceptSecContext = unsafe extern "C" fn(
    *mut u32,
    *mut Handle,
    Handle,
    *const Buffer,
    *const c_void,
    *mut Handle,
    *mut *const Oid,
    *mut Buffer,
    *mut u32,
    *mut u32,
    *mut Handle,
) -> u32;
type DisplayName = unsafe extern "C" fn(*mut u32, Handle, *mut Buffer, *mut *mut c_void) -> u32;
type DisplayStatus =
    unsafe extern "C" fn(*mut u32, u32, c_int, *const c_void, *mut u32, *mut Buffer) -> u32;
type ReleaseBuffer = unsafe extern "C" fn(*mut u32, *mut Buffer) -> u32;
type ReleaseHandle = unsafe extern "C" fn(*mut u32, *mut Handle) -> u32;
type DeleteSecContext = unsafe extern "C" fn(*mut u32, *mut Handle, *mut Buffer) -> u32;

/// The library, and its functions.
pub struct Gssapi {
    acquire_cred_from: AcquireCredFrom,
    accept_sec_context: AcceptSecContext,
    display_name: DisplayName,
    display_status: DisplayStatus,
    release_buffer: ReleaseBuffer,
    release_name: ReleaseHandle,
    release_cred: ReleaseHandle,
    delete_sec_context: DeleteSecContext,
    /// The functions are there as long as it is.
    _library: Library,
}

/// A credential of the library, given back when this is dropped.
pub struct Credential<'a> {
    library: &'a Gssapi,
    handle: Handle,
}

impl Drop for Credential<'_> {
    fn drop(&mut self) {
        let mut minor = 0;
        // SAFETY: the handle is one that gss_acquire_cred_from gave, and nobody else has it.
        unsafe { (self.library.release_cred)(&mut minor, &mut self.handle) };
    }
}

impl Gssapi {
    /// Loads the library.
    pub fn load() -> Result<Self, String> {
        // SAFETY: MIT's library does no more when it is loaded than to make its locks.
        let library = unsafe { Library::new(LIBRARY) }.map_err(|error| error.to_string())?;
        // SAFETY: each function is of the type that gssapi.h and gssapi_ext.h declare, in
        // which OM_uint32 is u32, size_t is usize, and structures are not packed (that is
        // so but for macOS). They are called only while `_library` is there.
        let loaded = unsafe {
            let missing = |error: libloading::Error| error.to_string();
            Self {
                acquire_cred_from: *library.get(b"gss_acquire_cred_from\0").map_err(missing)?,
                accept_sec_context: *library.get(b"gss_accept_sec_context\0").map_err(missing)?,
                display_name: *library.get(b"gss_display_name\0").map_err(missing)?,
                display_status: *library.get(b"gss_display_status\0").map_err(missing)?,
                release_buffer: *library.get(b"gss_release_buffer\0").map_err(missing)?,
                release_name: *library.get(b"gss_release_name\0").map_err(missing)?,
                release_cred: *library.get(b"gss_release_cred\0").map_err(missing)?,
                delete_sec_context: *library.get(b"gss_delete_sec_context\0").map_err(missing)?,
                _library: library,
            }
        };
        Ok(loaded)
    }

    /// The credential by which tickets for the keytab's services are accepted, once each.
    pub fn credential(
        &self,
        keytab: &CStr,
        replays: &CStr,
    ) -> Result<Credential<'_>, KerberosError> {
        let mut elements =
            [(c"keytab", keytab), (c"rcache", replays)].map(|(key, value)| KeyValue {
                key: key.as_ptr(),
                value: value.as_ptr(),
            });
        let store = KeyValues {
            count: 2,
            elements: elements.as_mut_ptr(),
        };
        let (mut minor, mut handle) = (0, ptr::null_mut());
        // SAFETY: what is pointed to is there until the call returns; null is allowed for
        // the name, the mechanisms and what is not asked for (RFC 2744 §5.2).
        let major = unsafe {
            (self.acquire_cred_from)(
                &mut minor,
                ptr::null_mut(),
                0,
                ptr::null(),
                ACCEPT,
                &store,
                &mut handle,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        if major & ERRORS != 0 {
            return Err(KerberosError::Keytab(self.told(major, minor)));
        }
        Ok(Credential {
            library: self,
            handle,
        })
    }

    /// Accepts the only token of a handshake.
    pub fn accept(
        &self,
        credential: &Credential<'_>,
        token: &[u8],
    ) -> Result<Accepted, KerberosError> {
        let input = Buffer {
            length: token.len(),
            // The library only reads it.
            value: token.as_ptr().cast_mut().cast(),
        };
        let mut minor = 0;
        let (mut context, mut name) = (ptr::null_mut(), ptr::null_mut());
        let (mut mechanism, mut output) = (ptr::null(), Buffer::empty());
        // SAFETY: the credential lives; input and outputs are there until the call
        // returns; a null context begins one; null is allowed for what is not asked for,
        // and for channel bindings (RFC 2744 §5.1).
        let major = unsafe {
            (self.accept_sec_context)(
                &mut minor,
                &mut context,
                credential.handle,
                &input,
                ptr::null(),
                &mut name,
                &mut mechanism,
                &mut output,
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        let reply = self.taken(&mut output);
        let principal = match major & ERRORS {
            0 if major & CONTINUE_NEEDED != 0 => Err("it takes more than one message".into()),
            // SAFETY: the mechanism is null or one of the library's own, which stay.
            0 if !unsafe { is_kerberos(mechanism) } => Err("it is no Kerberos ticket".into()),
            0 => self.name(name),
            _ => Err(self.told(major, minor)),
        };
        let mut ignored = 0;
        // SAFETY: both are what the call gave, null where it gave none, and are used no
        // more. The context's own last token is not asked for.
        unsafe {
            (self.release_name)(&mut ignored, &mut name);
            (self.delete_sec_context)(&mut ignored, &mut context, ptr::null_mut());
        }
        let principal = principal.map_err(KerberosError::Refused)?;
        Ok(Accepted { principal, reply })
    }

    fn name(&self, name: Handle) -> Result<String, String> {
        let (mut minor, mut text) = (0, Buffer::empty());
        // SAFETY: the name is one that the library gave, and is there.
        let major = unsafe { (self.display_name)(&mut minor, name, &mut text, ptr::null_mut()) };
        let text = self.taken(&mut text);
        if major & ERRORS != 0 {
            return Err(self.told(major, minor));
        }
        String::from_utf8(text).map_err(|_| "its name is no text".into())
    }

    /// What a buffer holds that the library filled; it is given back.
    fn taken(&self, buffer: &mut Buffer) -> Vec<u8> {
        let content = match buffer.value.is_null() {
            true => Vec::new(),
            // SAFETY: the library says that so many bytes are there, and they stay until
            // the buffer is given back.
            false => unsafe {
                std::slice::from_raw_parts(buffer.value.cast::<u8>(), buffer.length).to_vec()
            },
        };
        let mut minor = 0;
        // SAFETY: the buffer is the library's, or empty, and is used no more.
        unsafe { (self.release_buffer)(&mut minor, buffer) };
        content
    }

    /// What the library says of a status.
    fn told(&self, major: u32, minor: u32) -> String {
        let parts = [(major, GSS_CODE), (minor, MECH_CODE)];
        let parts = parts.into_iter().filter(|(status, _)| *status != 0);
        let texts: Vec<String> = parts
            .map(|(status, kind)| {
                let (mut ignored, mut more, mut text) = (0, 0, Buffer::empty());
                // SAFETY: all that is pointed to is there until the call returns; a null
                // mechanism is the default one (RFC 2744 §5.11).
                unsafe {
                    (self.display_status)(
                        &mut ignored,
                        status,
                        kind,
                        ptr::null(),
                        &mut more,
                        &mut text,
                    )
                };
                String::from_utf8_lossy(&self.taken(&mut text)).into_owned()
            })
            .collect();
        texts.join(": ")
    }
}

/// Whether a mechanism is Kerberos.
///
/// # Safety
/// It is null, or points to an object identifier that is there.
unsafe fn is_kerberos(mechanism: *const Oid) -> bool {
    // SAFETY: as above; so many bytes are there (RFC 2744 §3.3).
    unsafe {
        mechanism.as_ref().is_some_and(|oid| {
            let bytes = oid.elements.cast::<u8>();
            std::slice::from_raw_parts(bytes, oid.length as usize) == KERBEROS
        })
    }
}
