using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Security.Cryptography;
using System.Text;

namespace Musedrop
{
    /// <summary>Reading what others may be writing, renaming or deleting at that moment.</summary>
    internal static class Records
    {
        const long LargestRecord = 16 << 20;

        /// <summary>A JSON object of the share; null while it isn't there, isn't whole, or the share is away.</summary>
        public static Fields Read(string path)
        {
            try
            {
                using (var file = OpenShared(path))
                using (var reader = new StreamReader(file, Encoding.UTF8))
                    return file.Length > LargestRecord ? null : new Fields(Json.ReadObject(reader.ReadToEnd()));
            }
            catch (IOException)
            {
                return null;
            }
            catch (UnauthorizedAccessException)
            {
                return null;
            }
            catch (FormatException)
            {
                return null;
            }
        }

        /// <summary>For reading; others may go on to write, rename or delete the file.</summary>
        public static FileStream OpenShared(string path)
        {
            return new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        }

        /// <summary>The folders that a job of that name may have got: NAME, NAME-2, NAME-3 ...</summary>
        public static IList<string> FoldersOf(string parent, string name)
        {
            return FoldersLike(parent, name).Where(path => IsNumbered(Path.GetFileName(path), name)).ToList();
        }

        public static IList<string> FoldersLike(string parent, string name)
        {
            try
            {
                return Directory.EnumerateDirectories(parent, name + "*").ToList();
            }
            catch (IOException)
            {
                return new string[0];
            }
            catch (UnauthorizedAccessException)
            {
                return new string[0];
            }
        }

        static bool IsNumbered(string folder, string name)
        {
            if (!folder.StartsWith(name, StringComparison.OrdinalIgnoreCase)) return false;
            var rest = folder.Substring(name.Length);
            return rest.Length == 0 || rest.Length > 1 && rest[0] == '-' && rest.Skip(1).All(char.IsDigit);
        }

        /// <summary>A file of the caller's, for reading. Throws MusedropException.</summary>
        public static FileStream OpenSource(string path)
        {
            try
            {
                return OpenShared(path);
            }
            catch (Exception problem) when (problem is IOException || problem is UnauthorizedAccessException)
            {
                var message = path + " can't be read: " + problem.Message;
                throw new MusedropException("missing_media", message, "Give the path of a file that this program can read.", problem);
            }
        }

        public static string DigestOf(string path)
        {
            using (var hash = SHA256.Create())
            using (var file = OpenSource(path))
                return Hex(hash.ComputeHash(file));
        }

        public static string DigestOfText(string text)
        {
            using (var hash = SHA256.Create()) return Hex(hash.ComputeHash(Encoding.UTF8.GetBytes(text)));
        }

        static string Hex(byte[] bytes)
        {
            return BitConverter.ToString(bytes).Replace("-", "").ToLowerInvariant();
        }
    }
}
