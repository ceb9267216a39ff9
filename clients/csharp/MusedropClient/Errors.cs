using System;
using System.Collections.Generic;

namespace Musedrop
{
    /// <summary>The kind of an error.</summary>
    public enum ErrorKind
    {
        /// <summary>No error.</summary>
        None,
        /// <summary>The request is invalid: change it.</summary>
        BadRequest,
        /// <summary>The face or the voice can't be used: give another file.</summary>
        BadMedia,
        /// <summary>A file is missing.</summary>
        MissingMedia,
        /// <summary>The daemon's machine lacks an engine, an encoder or weights.</summary>
        Unavailable,
        /// <summary>The same request may succeed another time.</summary>
        Temporary,
        /// <summary>It took too long.</summary>
        Timeout,
        /// <summary>The job was cancelled.</summary>
        Cancelled,
        /// <summary>A bug, or a code that this version of the client doesn't know.</summary>
        Internal,
        /// <summary>The share is unreachable, or no daemon claims its jobs.</summary>
        NoService
    }

    /// <summary>Error codes and their kinds.</summary>
    public static class ErrorCodes
    {
        /// <summary>The share, or its inbox, is unreachable or not writable.</summary>
        public const string ShareUnavailable = "share_unavailable";
        /// <summary>No daemon claimed the job file; it was removed.</summary>
        public const string NotTaken = "not_taken";
        /// <summary>The job had not ended within <see cref="MusedropOptions.WaitTimeout"/>.</summary>
        public const string WaitTimeout = "wait_timeout";
        /// <summary>The job is done, or unknown to the daemon, and its result isn't in the outbox.</summary>
        public const string ResultMissing = "result_missing";

        static readonly Dictionary<string, ErrorKind> Kinds = new Dictionary<string, ErrorKind>
        {
            { "not_json", ErrorKind.BadRequest },
            { "trailing_comma", ErrorKind.BadRequest },
            { "not_an_object", ErrorKind.BadRequest },
            { "bad_encoding", ErrorKind.BadRequest },
            { "too_big", ErrorKind.BadRequest },
            { "bad_version", ErrorKind.BadRequest },
            { "unknown_key", ErrorKind.BadRequest },
            { "duplicate_key", ErrorKind.BadRequest },
            { "missing_key", ErrorKind.BadRequest },
            { "bad_value", ErrorKind.BadRequest },
            { "bad_option", ErrorKind.BadRequest },
            { "bad_prompt", ErrorKind.BadRequest },
            { "motion_size", ErrorKind.BadRequest },
            { "outside_roots", ErrorKind.BadRequest },
            { "id_conflict", ErrorKind.BadRequest },
            { "missing_media", ErrorKind.MissingMedia },
            { "media_changed", ErrorKind.Temporary },
            { "inputs_gone", ErrorKind.MissingMedia },
            { "engine_unavailable", ErrorKind.Unavailable },
            { "encoder_unavailable", ErrorKind.Unavailable },
            { "weights_missing", ErrorKind.Unavailable },
            { "weights_damaged", ErrorKind.Unavailable },
            { "weights_unsafe", ErrorKind.Unavailable },
            { "download_failed", ErrorKind.Unavailable },
            { "unsupported_file", ErrorKind.BadRequest },
            { "not_readable", ErrorKind.BadMedia },
            { "speech_failed", ErrorKind.BadMedia },
            { "media_too_large", ErrorKind.BadMedia },
            { "audio_unreadable", ErrorKind.BadMedia },
            { "audio_empty", ErrorKind.BadMedia },
            { "audio_too_short", ErrorKind.BadMedia },
            { "audio_too_long", ErrorKind.BadMedia },
            { "avatar_unreadable", ErrorKind.BadMedia },
            { "avatar_too_large", ErrorKind.BadMedia },
            { "avatar_too_small", ErrorKind.BadMedia },
            { "media_too_costly", ErrorKind.BadMedia },
            { "video_too_long", ErrorKind.BadMedia },
            { "poor_input", ErrorKind.BadMedia },
            { "no_face", ErrorKind.BadMedia },
            { "disk_full", ErrorKind.Temporary },
            { "part_damaged", ErrorKind.Temporary },
            { "result_invalid", ErrorKind.Temporary },
            { "out_of_memory", ErrorKind.Temporary },
            { "interrupted", ErrorKind.Temporary },
            { "timeout", ErrorKind.Timeout },
            { "poison", ErrorKind.Internal },
            { "internal", ErrorKind.Internal },
            { "cancelled", ErrorKind.Cancelled },
            { ShareUnavailable, ErrorKind.NoService },
            { NotTaken, ErrorKind.NoService },
            { WaitTimeout, ErrorKind.Timeout },
            { ResultMissing, ErrorKind.Internal }
        };

        /// <summary>Returns the kind of a code; <see cref="ErrorKind.Internal"/> for an unknown one.</summary>
        /// <param name="code">A code of docs/errors.md or of this class; null means no error.</param>
        public static ErrorKind KindOf(string code)
        {
            if (code == null) return ErrorKind.None;
            ErrorKind kind;
            return Kinds.TryGetValue(code, out kind) ? kind : ErrorKind.Internal;
        }
    }

    /// <summary>A job could not be submitted.</summary>
    public sealed class MusedropException : Exception
    {
        /// <summary>The error code.</summary>
        public string Code { get; private set; }
        /// <summary>What to do about it.</summary>
        public string Hint { get; private set; }
        /// <summary>The kind of the error.</summary>
        public ErrorKind Kind { get { return ErrorCodes.KindOf(Code); } }

        internal MusedropException(string code, string message, string hint, Exception cause = null) : base(message, cause)
        {
            Code = code;
            Hint = hint;
        }
    }
}
